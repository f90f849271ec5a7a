"""A fully connected network with its parameters in one buffer and its gradients in another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastoptim.kernels.normalization import Extension
from fastoptim.kernels.passes import GRADIENT, LOSS, SCORES
from fastoptim.network.architecture import Architecture
from fastoptim.network.batches import batch, samples
from fastoptim.network.runner import Runner
from fastoptim.parameters import FlatDict

__all__ = ["MultiLayerNet"]

_STEP = 1e-4
"""The step of central differences."""


class MultiLayerNet(Architecture):
    r"""Fully connected network with a softmax and cross-entropy loss.

    With :math:`a_0 = x`, activation :math:`\sigma` and :math:`n` layers,

    .. math::

        a_k &= \sigma(a_{k-1} W_k + b_k), \quad k < n, \qquad s = a_{n-1} W_n + b_n \\
        L &= -\frac{1}{N} \sum_i \log(\mathrm{softmax}(s_i)_{t_i} + 10^{-7}) + \frac{\lambda}{2} \sum_k \|W_k\|^2

    Parameters
    ----------
    input_size : int
        Number of features of a sample.
    hidden_size_list : sequence of int
        Widths of the hidden layers; empty for a linear model.
    output_size : int
        Number of classes.
    activation : {'relu', 'sigmoid'}
        The function :math:`\sigma`.
    weight_init_std : {'relu', 'he', 'sigmoid', 'xavier'} or float
        Standard deviation of the initial weights: a number; or for a layer of :math:`n` inputs, :math:`\sqrt{2/n}` by
        ``'relu'`` or ``'he'`` (He et al. 2015, eq. 10), :math:`\sqrt{1/n}` by ``'sigmoid'`` or ``'xavier'`` (Glorot and
        Bengio 2010, eq. 15 for equal widths). Biases start at zero.
    weight_decay_lambda : float
        The weight decay :math:`\lambda`, not negative.
    dtype : dtype, keyword only
        float32 or float64, for the parameters and all arithmetic. Weights are drawn in float64.
    seed : int, optional, keyword only
        Seed of the initial weights. Without it they are drawn from the global ``numpy.random``; ``np.random.seed``
        with the same number gives the same weights.

    Attributes
    ----------
    params : FlatDict
        ``W1, b1, W2, b2, …``, with ``W`` of shape (inputs, outputs). Assigning copies; optimizers update in place.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Notes
    -----
    Methods may be called from several threads. They release the GIL. On x86 with AVX2 and FMA, products of batches of
    8 samples or more skip the zeros of samples and of what ReLU gives, and threads share the samples where that is
    measured to be faster; `num_threads` sets how many. The same input gives the same bits on any number of threads.

    BLAS computes all other products, on as many threads as ``threadpoolctl.threadpool_limits`` sets after this class
    was imported. With another number of them, OpenBLAS may add in another order in products of more than :math:`2^{18}`
    multiplications.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> net = fo.MultiLayerNet(2, [8], 2, seed=0)
    >>> opt = fo.Adam(lr=0.1)
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> t = np.array([0, 1, 1, 0])
    >>> for _ in range(100):
    ...     opt.update(net.params, net.gradient(x, t))
    >>> net.accuracy(x, t)
    1.0
    """

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the scores before softmax.

        Parameters
        ----------
        x : array of shape (N, input_size) or (input_size,)
            Samples, of any real dtype.

        Returns
        -------
        ndarray of shape (N, output_size) or (output_size,)
        """
        scores = self._predict(samples(x, self.input_size, self.dtype))
        return scores if np.ndim(x) == 2 else scores[0]

    def loss(self, x: ArrayLike, t: ArrayLike) -> float:
        """Return the loss: mean cross-entropy plus weight decay.

        Parameters
        ----------
        x : array of shape (N, input_size) or (input_size,)
            Samples, of any real dtype.
        t : array of shape (N,) or (N, output_size)
            Class numbers from 0 on, or one-hot rows.

        Returns
        -------
        float
        """
        return self._loss(*self._batch(x, t))

    def accuracy(self, x: ArrayLike, t: ArrayLike) -> float:
        """Return the fraction of samples whose highest score is that of their class; arguments as in `loss`."""
        x, t = self._batch(x, t)
        return float(np.mean(self.predict(x).argmax(axis=1) == t))

    def gradient(self, x: ArrayLike, t: ArrayLike) -> FlatDict:
        """Return the gradient of the loss with respect to all parameters, by back-propagation.

        Parameters
        ----------
        x, t
            As in `loss`.

        Returns
        -------
        FlatDict
            A new array for each of `params`, which no later call changes.
        """
        return self._gradient(*self._batch(x, t))

    def numerical_gradient(self, x: ArrayLike, t: ArrayLike) -> FlatDict:
        """Return the gradient by central differences with a step of 1e-4, to check `gradient`, with its arguments.

        It computes two losses for each parameter, always in float64, because the difference of two float32 losses is
        mostly rounding error.
        """
        x, t = self._batch(x, t)
        return self._numerical_gradient(x.astype(np.float64), t)

    # The methods of a pass, of rows and labels that were checked.

    def _predict(self, x: NDArray[Any], extension: Extension | None = None) -> NDArray[Any]:
        scores = np.empty((len(x), self.output_size), self.dtype)
        self._runner.run(SCORES, x, self._params.flat, out=scores, extension=extension)
        return scores

    def _loss(self, x: NDArray[Any], t: NDArray[np.intp], extension: Extension | None = None) -> float:
        return self._loss_by(self._runner, self._params.flat, x, t, extension)

    def _loss_by(
        self, runner: Runner, params: NDArray[Any], x: NDArray[Any], t: NDArray[np.intp], extension: Extension | None
    ) -> float:
        losses = np.empty(len(x))
        runner.run(LOSS, x, params, targets=t, losses=losses, extension=extension)
        loss, decay = float(np.add.reduce(losses)) / len(x), float(self.weight_decay_lambda)
        return loss + runner.penalty(params, decay) if decay else loss

    def _gradient(self, x: NDArray[Any], t: NDArray[np.intp], extension: Extension | None = None) -> FlatDict:
        params, decay = self._params.flat, float(self.weight_decay_lambda)
        flat = np.empty_like(params)
        self._runner.run(GRADIENT, x, params, out=flat, targets=t, extension=extension, decay=decay)
        return FlatDict(self._params.layout, {self.dtype: flat})

    def _numerical_gradient(self, x: NDArray[Any], t: NDArray[np.intp], extension: Extension | None = None) -> FlatDict:
        params = self._params.flat.astype(np.float64)
        flat = np.empty_like(params)
        runner = self._new_runner(params.dtype)
        for i, value in enumerate(params.copy()):
            losses = []
            for near in (value + _STEP, value - _STEP):
                params[i] = near
                losses.append(self._loss_by(runner, params, x, t, extension))
            params[i] = value
            flat[i] = (losses[0] - losses[1]) / (2 * _STEP)
        return FlatDict(self._params.layout, {self.dtype: flat.astype(self.dtype)})

    def _batch(self, x: ArrayLike, t: ArrayLike) -> tuple[NDArray[Any], NDArray[np.intp]]:
        return batch(x, t, self.input_size, self.output_size, self.dtype)
