"""The oracle of `MultiLayerNetExtend`, layer by layer in plain NumPy, as the textbook computes; the bench races it."""

from itertools import pairwise

import numpy as np


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W) + self.b

    def backward(self, dout):
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        return np.dot(dout, self.W.T)


class Relu:
    def forward(self, x):
        self.off = x <= 0
        out = x.copy()
        out[self.off] = 0
        return out

    def backward(self, dout):
        dout[self.off] = 0
        return dout


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * (1 - self.out) * self.out


class Dropout:
    def __init__(self, ratio):
        self.ratio = ratio

    def forward(self, x, train_flg):
        if not train_flg:
            return x * (1 - self.ratio)
        self.kept = np.random.rand(*x.shape) > self.ratio
        return x * self.kept

    def backward(self, dout):
        return dout * self.kept


class BatchNorm:
    momentum, eps = 0.9, 10e-7

    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta
        self.running_mean, self.running_var = np.zeros_like(gamma), np.zeros_like(gamma)

    def forward(self, x, train_flg):
        if not train_flg:
            return self.gamma * ((x - self.running_mean) / np.sqrt(self.running_var + self.eps)) + self.beta
        mean = x.mean(axis=0)
        self.centered = x - mean
        var = np.mean(self.centered**2, axis=0)
        self.std = np.sqrt(var + self.eps)
        self.normal = self.centered / self.std
        self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
        self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        return self.gamma * self.normal + self.beta

    def backward(self, dout):
        # Step by step along the graph of the forward pass.
        rows = len(dout)
        self.dbeta = dout.sum(axis=0)
        self.dgamma = np.sum(self.normal * dout, axis=0)
        dnormal = self.gamma * dout
        dcentered = dnormal / self.std
        dstd = -np.sum(dnormal * self.centered / self.std**2, axis=0)
        dvar = dstd / (2 * self.std)
        dcentered += 2 / rows * self.centered * dvar
        return dcentered - dcentered.sum(axis=0) / rows


class Loss:
    """Softmax with cross-entropy, of class numbers or one-hot rows."""

    def forward(self, scores, t):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        self.y = e / e.sum(axis=1, keepdims=True)
        self.labels = t if t.ndim == 1 else t.argmax(axis=1)
        return -np.sum(np.log(self.y[np.arange(len(t)), self.labels] + 1e-7)) / len(t)

    def backward(self):
        d = self.y.copy()
        d[np.arange(len(d)), self.labels] -= 1
        return d / len(d)


class MultiLayerNetExtend:
    def __init__(
        self,
        input_size,
        hidden_size_list,
        output_size,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
        use_dropout=False,
        dropout_ration=0.5,
        use_batchnorm=False,
    ):
        sizes = [input_size, *hidden_size_list, output_size]
        self.depth, self.decay = len(sizes) - 1, weight_decay_lambda
        self.params, self.layers = {}, {}
        for k, (inputs, outputs) in enumerate(pairwise(sizes), 1):
            gain = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}.get(weight_init_std)
            scale = weight_init_std if gain is None else np.sqrt(gain / inputs)
            self.params[f"W{k}"] = scale * np.random.randn(inputs, outputs)
            self.params[f"b{k}"] = np.zeros(outputs)
        for k in range(1, self.depth + 1):
            self.layers[f"Affine{k}"] = Affine(self.params[f"W{k}"], self.params[f"b{k}"])
            if k == self.depth:
                break
            if use_batchnorm:
                self.params[f"gamma{k}"], self.params[f"beta{k}"] = np.ones(sizes[k]), np.zeros(sizes[k])
                self.layers[f"BatchNorm{k}"] = BatchNorm(self.params[f"gamma{k}"], self.params[f"beta{k}"])
            self.layers[f"Activation{k}"] = Relu() if activation == "relu" else Sigmoid()
            if use_dropout:
                self.layers[f"Dropout{k}"] = Dropout(dropout_ration)
        self.last = Loss()

    @property
    def statistics(self):
        norms = {k: self.layers[f"BatchNorm{k}"] for k in range(1, self.depth) if f"BatchNorm{k}" in self.layers}
        means = {f"running_mean{k}": norm.running_mean for k, norm in norms.items()}
        return means | {f"running_var{k}": norm.running_var for k, norm in norms.items()}

    def predict(self, x, train_flg=False):
        for name, layer in self.layers.items():
            x = layer.forward(x, train_flg) if name.startswith(("BatchNorm", "Dropout")) else layer.forward(x)
        return x

    def loss(self, x, t, train_flg=False):
        loss = self.last.forward(self.predict(x, train_flg), t)
        return loss + sum(0.5 * self.decay * np.sum(self.params[f"W{k}"] ** 2) for k in range(1, self.depth + 1))

    def accuracy(self, x, t):
        return np.mean(self.predict(x).argmax(axis=1) == (t if t.ndim == 1 else t.argmax(axis=1)))

    def gradient(self, x, t):
        self.loss(x, t, train_flg=True)
        dout = self.last.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads = {}
        for k in range(1, self.depth + 1):
            affine, norm = self.layers[f"Affine{k}"], self.layers.get(f"BatchNorm{k}")
            grads[f"W{k}"], grads[f"b{k}"] = affine.dW + self.decay * self.params[f"W{k}"], affine.db
            if norm:
                grads[f"gamma{k}"], grads[f"beta{k}"] = norm.dgamma, norm.dbeta
        return grads

    def numerical_gradient(self, x, t, seed, h=1e-4):
        """Central differences, with the same elements dropped in all losses: those of a seed."""
        grads = {}
        for key, p in self.params.items():
            grads[key] = np.empty_like(p)
            for index in np.ndindex(p.shape):
                middle, losses = p[index], []
                for value in middle + h, middle - h:
                    p[index] = value
                    np.random.seed(seed)
                    losses.append(self.loss(x, t, train_flg=True))
                p[index] = middle
                grads[key][index] = (losses[0] - losses[1]) / (2 * h)
        return grads
