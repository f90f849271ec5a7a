"""A fully connected network with batch normalization and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastoptim.arguments import true_or_false
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels.normalization import Extension, move_averages
from fastoptim.network.batches import samples
from fastoptim.network.multilayer import MultiLayerNet
from fastoptim.parameters import FlatDict, flatten

__all__ = ["MultiLayerNetExtend"]


class MultiLayerNetExtend(MultiLayerNet):
    r"""Fully connected network with batch normalization, dropout and weight decay.

    A hidden layer with product :math:`z = a_{k-1} W_k + b_k` and activation :math:`\sigma` has the output

    .. math::

        a_k = m \odot \sigma\!\left(\gamma_k \odot \frac{z - \mu}{\sqrt{v + 10^{-6}}} + \beta_k\right)

    in training, where :math:`\mu` and :math:`v` are the mean and the variance of each unit over the batch, and each
    element of :math:`m` is 0 with probability :math:`p` and 1 otherwise. In tests, :math:`\mu` and :math:`v` are their
    moving averages, and :math:`m` is :math:`1 - p`. Loss and last layer are those of `MultiLayerNet`.

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        As in `MultiLayerNet`.
    use_dropout : bool
        Whether outputs of hidden layers are dropped.
    dropout_ration : float
        The probability :math:`p`, in [0, 1]. It may be changed at any time. The spelling is that of the textbook.
    use_batchnorm : bool
        Whether hidden layers are normalized.
    dtype, seed
        As in `MultiLayerNet`. The seed is that of the initial weights alone.

    Attributes
    ----------
    params : FlatDict
        ``W1, b1, W2, b2, …``; with batch normalization then ``gamma1, beta1, gamma2, …``, of ones and zeros at first.
    statistics : FlatDict
        ``running_mean1, running_mean2, …, running_var1, running_var2, …``, zeros at first; empty without batch
        normalization. Each pass in training moves them by a tenth of the way to the values of its batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Notes
    -----
    `gradient` is a pass in training; `loss` and `predict` are with ``train_flg=True``. Such a pass draws from the
    global ``numpy.random``, as the textbook's code does: for each hidden layer in turn, one number an element. To
    continue a run with dropout with the same bits, save ``np.random.get_state()`` with the network.

    The loss does not depend on a bias before batch normalization, so its gradient is exactly zero here; in the
    textbook's code it is rounding error, which Adam turns into steps.

    `MultiLayerNet.save` writes the statistics too. To have them in one file with an optimizer, call
    ``opt.save(path, {**net.params, **net.statistics})``, and pass the same to `fastoptim.load`.

    Without both options, the network has the bits of `MultiLayerNet`, whose notes on threads apply. What batch
    normalization and dropout add does not depend on threads.

    References
    ----------
    .. [1] S. Ioffe and C. Szegedy (2015), "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
       Covariate Shift", https://arxiv.org/abs/1502.03167, algorithms 1 and 2.
    .. [2] G. E. Hinton et al. (2012), "Improving neural networks by preventing co-adaptation of feature detectors",
       https://arxiv.org/abs/1207.0580.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> net = fo.MultiLayerNetExtend(2, [8, 8], 2, use_batchnorm=True, seed=0)
    >>> opt = fo.Adam(lr=0.1)
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> t = np.array([0, 1, 1, 0])
    >>> for _ in range(100):
    ...     opt.update(net.params, net.gradient(x, t))
    >>> net.accuracy(x, t)
    1.0
    >>> list(net.params)
    ['W1', 'b1', 'W2', 'b2', 'W3', 'b3', 'gamma1', 'beta1', 'gamma2', 'beta2']
    """

    dropout_ration = Hyperparameter(0, 1)

    _numbers = ("weight_decay_lambda", "dropout_ration")

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        self._drops = true_or_false("use_dropout", use_dropout)
        self._is_normalized = true_or_false("use_batchnorm", use_batchnorm)
        self.dropout_ration = dropout_ration
        architecture = input_size, hidden_size_list, output_size, activation
        super().__init__(*architecture, weight_init_std, weight_decay_lambda, dtype=dtype, seed=seed)
        units = list(enumerate(self.hidden_size_list, start=1)) if self._is_normalized else []
        names = [(f"running_{name}{k}", n) for name in ("mean", "var") for k, n in units]
        self._state = {"statistics": flatten({name: np.zeros(n) for name, n in names}, dtype=self.dtype)}

    @property
    def use_dropout(self) -> bool:
        """Whether outputs of hidden layers are dropped."""
        return self._drops

    @property
    def use_batchnorm(self) -> bool:
        """Whether hidden layers are normalized."""
        return self._is_normalized

    @property
    def statistics(self) -> FlatDict:
        """The moving averages of means and variances, views of one buffer."""
        return self._state["statistics"]

    def predict(self, x: ArrayLike, train_flg: bool = False) -> NDArray[Any]:
        """Return the scores before softmax.

        Parameters
        ----------
        x : array of shape (N, input_size) or (input_size,)
            Samples, of any real dtype.
        train_flg : bool
            Whether this is a pass in training.

        Returns
        -------
        ndarray of shape (N, output_size) or (output_size,)
        """
        rows = samples(x, self.input_size, self.dtype)
        extension = self._extension(rows, bool(train_flg))
        scores = self._predict(rows, extension)
        self._keep(extension)
        return scores if np.ndim(x) == 2 else scores[0]

    def loss(self, x: ArrayLike, t: ArrayLike, train_flg: bool = False) -> float:
        """Return the loss: mean cross-entropy plus weight decay.

        Parameters
        ----------
        x, t
            As in `MultiLayerNet.loss`.
        train_flg : bool
            Whether this is a pass in training.

        Returns
        -------
        float
        """
        x, t = self._batch(x, t)
        extension = self._extension(x, bool(train_flg))
        loss = self._loss(x, t, extension)
        self._keep(extension)
        return loss

    def gradient(self, x: ArrayLike, t: ArrayLike) -> FlatDict:
        """Return the gradient by back-propagation after a pass in training; see `MultiLayerNet.gradient`."""
        x, t = self._batch(x, t)
        extension = self._extension(x, True)
        grads = self._gradient(x, t, extension)
        self._keep(extension)
        return grads

    def numerical_gradient(self, x: ArrayLike, t: ArrayLike) -> FlatDict:
        """Return the gradient by central differences; see `MultiLayerNet.numerical_gradient`.

        All losses are of training, with the same elements dropped: those that `gradient` drops after the same
        ``np.random.seed``. The moving averages stay as they are.
        """
        x, t = self._batch(x, t)
        x = x.astype(np.float64)
        return self._numerical_gradient(x, t, self._extension(x, True))

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        dtype = arguments.pop("dtype")
        options = {"use_dropout": self.use_dropout, "dropout_ration": self.dropout_ration}
        return arguments | options | {"use_batchnorm": self.use_batchnorm, "dtype": dtype}

    @property
    def _averages(self) -> NDArray[Any]:
        """The statistics as two rows."""
        return self.statistics.flat.reshape(2, -1) if self.statistics else np.empty((2, 0), self.dtype)

    def _extension(self, rows: NDArray[Any], is_training: bool) -> Extension:
        statistics = np.empty(self._averages.shape, rows.dtype) if is_training else self._averages
        if is_training and statistics.size and not len(rows):
            raise ValueError("x has no samples, so there is no mean of them to normalize with")
        n_drawn = len(rows) * sum(self._sizes[1:-1]) if self._drops and is_training else 0
        return Extension(is_training, self._drops, self.dropout_ration, np.random.rand(n_drawn), statistics)

    def _keep(self, extension: Extension) -> None:
        if extension.is_training and extension.statistics.size:
            move_averages(self._averages, extension.statistics)
