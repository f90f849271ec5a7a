r"""
Word vectors from a small text, with sparse gradients
=====================================================

CBOW learns a vector for each word by guessing a word from those around it. A batch looks up few rows of the table of
vectors, and only these have gradients. ``fo.Rows(indices, values)`` is such a gradient: the optimizer reads and writes
these rows and their state only, however long the table is.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=2000)
rng = np.random.default_rng(0)

# %%
# The text is made of sentences such as "the cat eats bread in paris ." Its grammar is hidden from the model, which sees
# only numbers of words.

KINDS = {
    "animals": ["cat", "dog", "horse", "mouse", "cow", "goat"],
    "verbs": ["eats", "buys", "sells", "wants", "finds", "hides"],
    "foods": ["bread", "rice", "cheese", "apples", "soup", "nuts"],
    "cities": ["paris", "tokyo", "cairo", "lima", "oslo", "rome"],
}
choices = [rng.choice(words, 3000) for words in KINDS.values()]
sentences = [f"the {animal} {verb} {food} in {city} ." for animal, verb, food, city in zip(*choices, strict=True)]
text = " ".join(sentences).split()
words = sorted(set(text))
ids = np.array([words.index(word) for word in text])

# %%
# For each position, the model scores its word and a few random ones: the dot product of a word's output vector and the
# mean of the input vectors of its four neighbours. The loss is the cross-entropy of "this is the word".

SIZE, BATCH, NEGATIVES = 10, 64, 5
NEIGHBOURS = np.array([-2, -1, 1, 2])
params = {
    "in": 0.1 * rng.standard_normal((len(words), SIZE)),
    "out": np.zeros((len(words), SIZE)),
}
truth = np.eye(1, NEGATIVES + 1)


def loss_and_gradients(positions):
    """Return the loss of a batch, and the gradients of both tables as rows."""
    context = ids[positions[:, None] + NEIGHBOURS]
    candidates = np.column_stack([ids[positions], ids[rng.integers(len(ids), size=(len(positions), NEGATIVES))]])
    mean, outputs = params["in"][context].mean(axis=1), params["out"][candidates]
    p = 1 / (1 + np.exp(-np.einsum("bd,bcd->bc", mean, outputs)))
    error = (p - truth) / len(positions)
    d_mean = np.einsum("bc,bcd->bd", error, outputs) / len(NEIGHBOURS)
    loss = -np.log(np.where(truth, p, 1 - p)).sum(axis=1).mean()
    return loss, {
        "in": fo.Rows(context, np.repeat(d_mean[:, None], len(NEIGHBOURS), axis=1)),
        "out": fo.Rows(candidates, error[:, :, None] * mean[:, None]),
    }


optimizer, losses = fo.Adam(lr=0.01), []
for _ in range(options.steps):
    loss, grads = loss_and_gradients(rng.integers(2, len(ids) - 2, size=BATCH))
    optimizer.update(params, grads)
    losses.append(loss)

# %%
# Two vectors are alike if the cosine of the angle between them is near 1. Words of one kind are alike, although the
# model was never told of kinds: it is enough that they have the same neighbours.

shown = [word for members in KINDS.values() for word in members]
vectors = params["in"][[words.index(word) for word in shown]]
vectors -= vectors.mean(axis=0)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
cosines = vectors @ vectors.T
kinds = np.repeat(np.arange(len(KINDS)), 6)
nearest = (cosines - 2 * np.eye(len(shown))).argmax(axis=1)
print(f"loss {np.mean(losses[:50]):.2f}, then {np.mean(losses[-50:]):.2f}")
print(f"{np.sum(kinds[nearest] == kinds)} of {len(shown)} words have a word of their kind as the nearest")

figure, axes = plt.subplots(figsize=(8, 7))
image = axes.imshow(cosines, cmap="cividis", vmin=-1, vmax=1)
axes.set_xticks(range(len(shown)), shown, rotation=90)
axes.set_yticks(range(len(shown)), shown)
axes.grid(visible=False)
axes.set_title("cosine between the vectors of two words")
figure.colorbar(image, shrink=0.8)
show(figure, options)
