"""
Weight decay and dropout against overfitting
============================================

A network with many parameters learns 300 images by heart, even those with wrong labels, and its accuracy on new images
falls. Weight decay keeps the weights small, and dropout switches off random units in each step. Both make it harder to
learn single images than to learn what they have in common.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, epochs=200)

# %%
# 300 of scikit-learn's digits; one label in five is drawn at random.

data, rng = load_data("digits"), np.random.default_rng(0)
chosen = rng.permutation(len(data.x_train))[:300]
x, t = data.x_train[chosen], data.t_train[chosen].copy()
wrong = rng.random(len(t)) < 0.2
t[wrong] = rng.integers(10, size=wrong.sum())

# %%
# The keywords are those of the textbook. Dropout draws from NumPy's global generator, so that is what a seed is for.

CASES = {
    "neither": {},
    "weight decay 0.03": {"weight_decay_lambda": 0.03},
    "dropout of one half": {"use_dropout": True, "dropout_ration": 0.5},
}
figure, panels = plt.subplots(1, 3, figsize=(8, 3.6), sharey=True)
for (name, keywords), axes in zip(CASES.items(), panels, strict=True):
    np.random.seed(0)
    network = fo.MultiLayerNetExtend(64, [100, 100, 100], 10, **keywords, seed=0)
    optimizer, accuracies = fo.Adam(), []
    for _ in range(options.epochs):
        for batch in np.split(np.random.permutation(len(x)), 3):
            optimizer.update(network.params, network.gradient(x[batch], t[batch]))
        accuracies.append((network.accuracy(x, t), network.accuracy(data.x_test, data.t_test)))
    learned, new = np.transpose(accuracies)
    axes.plot(learned, "--", label="images it learns from")
    axes.plot(new, label="new images")
    axes.set(title=name, xlabel="epochs", ylim=(0.4, 1.02))
    print(f"{name:<20} learned {learned[-10:].mean():.3f}, new {new[-10:].mean():.3f}, best {new.max():.3f}")
panels[0].set_ylabel("accuracy")
panels[0].legend(loc="lower right")
show(figure, options)
