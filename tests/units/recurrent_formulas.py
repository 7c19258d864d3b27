"""The recurrent units in plain NumPy, one row and one step at a time."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, weights, states, mask=None):
    """Every output and the last states of one row (time, features)."""
    kernel, recurrent, bias = weights
    wz, wr, w = np.split(kernel, 3, axis=1)
    uz, ur, u = np.split(recurrent, 3, axis=1)
    bz, br, b = np.split(bias, 3)
    (h,) = states
    outputs, held = [], np.zeros_like(h)
    for t in range(len(x)):
        if mask is None or mask[t]:
            z = sigmoid(x[t] @ wz + h @ uz + bz)
            r = sigmoid(x[t] @ wr + h @ ur + br)
            proposal = np.tanh(x[t] @ w + (r * h) @ u + b)
            h = (1 - z) * h + z * proposal
            held = h
        outputs.append(held)
    return outputs, [h]


def lstm(x, weights, states, mask=None):
    """Every output and the last states of one row (time, features)."""
    kernel, recurrent, bias = weights
    wi, wf, wc, wo = np.split(kernel, 4, axis=1)
    ui, uf, uc, uo = np.split(recurrent, 4, axis=1)
    bi, bf, bc, bo = np.split(bias, 4)
    h, c = states
    outputs, held = [], np.zeros_like(h)
    for t in range(len(x)):
        if mask is None or mask[t]:
            i = sigmoid(x[t] @ wi + h @ ui + bi)
            f = sigmoid(x[t] @ wf + h @ uf + bf)
            o = sigmoid(x[t] @ wo + h @ uo + bo)
            c = f * c + i * np.tanh(x[t] @ wc + h @ uc + bc)
            h = o * np.tanh(c)
            held = h
        outputs.append(held)
    return outputs, [h, c]
