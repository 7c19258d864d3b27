"""The formulas of the papers, node by node, in NumPy: what the layers are held against."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def child_sum(weights, x, children):
    """Tai et al. 2015, equations 2 to 8; weights W, b (gates i, o, u, f), U of i, o, u, U of f."""
    w, b, u_gates, u_forget = weights
    units = u_forget.shape[0]
    w_i, w_o, w_u, w_f = np.split(w, 4, axis=1)
    b_i, b_o, b_u, b_f = np.split(b, 4)
    u_i, u_o, u_u = np.split(u_gates, 3, axis=1)
    total = np.zeros(units)
    for h, _ in children:
        total = total + h
    i = sigmoid(x @ w_i + total @ u_i + b_i)
    o = sigmoid(x @ w_o + total @ u_o + b_o)
    u = np.tanh(x @ w_u + total @ u_u + b_u)
    c = i * u
    for h, c_k in children:
        c = c + sigmoid(x @ w_f + h @ u_forget + b_f) * c_k
    return o * np.tanh(c), c


def n_ary(weights, x, children):
    """Tai et al. 2015, equations 9 to 14; U has the rows of child l, the columns i, o, u, f_k."""
    w, b, u = weights
    units = w.shape[1] // 4
    arity = u.shape[0] // units
    w_i, w_o, w_u, w_f = np.split(w, 4, axis=1)
    b_i, b_o, b_u, b_f = np.split(b, 4)

    def matrix(child, column):
        return u[child * units : (child + 1) * units, column * units : (column + 1) * units]

    def product(column):
        total = np.zeros(units)
        for place, (h, _) in enumerate(children):
            total = total + h @ matrix(place, column)
        return total

    assert len(children) <= arity
    i = sigmoid(x @ w_i + product(0) + b_i)
    o = sigmoid(x @ w_o + product(1) + b_o)
    c = i * np.tanh(x @ w_u + product(2) + b_u)
    for k, (_, c_k) in enumerate(children):
        c = c + sigmoid(x @ w_f + product(3 + k) + b_f) * c_k
    return o * np.tanh(c), c


def dense_tanh(arity):
    """y = tanh(concat(x, children) @ kernel + bias), zeros where there is no child."""

    def cell(weights, x, children):
        kernel, bias = weights
        units = len(bias)
        slots = [y for (y,) in children] + [np.zeros(units)] * (arity - len(children))
        return (np.tanh(np.concatenate([x, *slots]) @ kernel + bias),)

    return cell


def node_vectors(cell, weights, features, parents):
    """The vector of every node of one tree, children before parents without recursion."""
    weights = [np.asarray(weight, "float64") for weight in weights]
    states = {}
    waiting = list(range(len(parents)))
    while waiting:
        node = waiting.pop()
        below = [k for k in range(len(parents)) if parents[k] == node]
        missing = [k for k in below if k not in states]
        if missing:
            waiting += [node, *missing]
        elif node not in states:
            states[node] = cell(weights, features[node], [states[k] for k in below])
    return [states[node][0] for node in range(len(parents))]


def root_vector(cell, weights, features, parents, units):
    """The vector of the root of one tree; zeros where there is no node."""
    if len(parents) == 0:
        return np.zeros(units)
    return node_vectors(cell, weights, features, parents)[list(parents).index(-1)]
