"""The formulas of the papers, node by node, in NumPy: what the layers are held against.

A formula takes the weights, the features of a node, the states of its children, and what stands on
the edges to them: labels, or slots. It gives the states of the node.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def child_sum(weights, x, children, edges=()):
    """Tai et al. 2015, equations 2 to 8; weights W, b (gates i, o, u, f), U of i, o, u, U of f.

    A fifth weight has a row V for each label of an edge: the sum over the children of theirs goes
    to i, o and u, and that of child k to f_k.
    """
    w, b, u_gates, u_forget, *of_labels = weights
    units = u_forget.shape[0]
    w_i, w_o, w_u, w_f = np.split(w, 4, axis=1)
    b_i, b_o, b_u, b_f = np.split(b, 4)
    u_i, u_o, u_u = np.split(u_gates, 3, axis=1)
    labels = (
        [of_labels[0][edge] for edge in edges]
        if of_labels
        else np.zeros((len(children), 4 * units))
    )
    v_i, v_o, v_u, _ = np.split(np.sum([np.zeros(4 * units), *labels], axis=0), 4)
    total = np.zeros(units)
    for h, _ in children:
        total = total + h
    i = sigmoid(x @ w_i + total @ u_i + v_i + b_i)
    o = sigmoid(x @ w_o + total @ u_o + v_o + b_o)
    u = np.tanh(x @ w_u + total @ u_u + v_u + b_u)
    c = i * u
    for (h, c_k), label in zip(children, labels, strict=True):
        c = c + sigmoid(x @ w_f + h @ u_forget + label[3 * units :] + b_f) * c_k
    return o * np.tanh(c), c


def n_ary(weights, x, children, slots):
    """Tai et al. 2015, equations 9 to 14; U has the rows of child l, the columns i, o, u, f_k."""
    w, b, u = weights
    units = w.shape[1] // 4
    w_i, w_o, w_u, w_f = np.split(w, 4, axis=1)
    b_i, b_o, b_u, b_f = np.split(b, 4)

    def matrix(child, column):
        return u[child * units : (child + 1) * units, column * units : (column + 1) * units]

    def product(column):
        total = np.zeros(units)
        for slot, (h, _) in zip(slots, children, strict=True):
            total = total + h @ matrix(slot, column)
        return total

    i = sigmoid(x @ w_i + product(0) + b_i)
    o = sigmoid(x @ w_o + product(1) + b_o)
    c = i * np.tanh(x @ w_u + product(2) + b_u)
    for k, (_, c_k) in zip(slots, children, strict=True):
        c = c + sigmoid(x @ w_f + product(3 + k) + b_f) * c_k
    return o * np.tanh(c), c


def gru(weights, x, children, edges=()):
    """A reset gate for each child, Cho et al. 2014 over sums; W, b and U in the order z, u, r."""
    w, b, u = weights
    w_z, w_u, w_r = np.split(w, 3, axis=1)
    b_z, b_u, b_r = np.split(b, 3)
    u_z, u_u, u_r = np.split(u, 3, axis=1)
    total = np.zeros(u.shape[0])
    after_reset = np.zeros(u.shape[0])
    for (h,) in children:
        total = total + h
        after_reset = after_reset + sigmoid(x @ w_r + h @ u_r + b_r) * h
    z = sigmoid(x @ w_z + total @ u_z + b_z)
    proposal = np.tanh(x @ w_u + after_reset @ u_u + b_u)
    return ((1 - z) * total + z * proposal,)


def tensor(weights, x, children, slots):
    """Socher et al. 2013, section 4.3: one bilinear form for each unit; a leaf is its features."""
    v, w, b = weights
    if not children:
        return (x,)
    units = len(b)
    a = np.zeros(len(w))
    for slot, (y,) in zip(slots, children, strict=True):
        a[slot * units : (slot + 1) * units] = y
    met = np.array([a @ v[unit] @ a for unit in range(units)])
    return (np.tanh(x + met + a @ w + b),)


def dense_tanh(arity):
    """y = tanh(concat(x, children) @ kernel + bias), zeros where there is no child."""

    def formula(weights, x, children, slots):
        kernel, bias = weights
        beside = [np.zeros(len(bias)) for _ in range(arity)]
        for slot, (y,) in zip(slots, children, strict=True):
            beside[slot] = y
        return (np.tanh(np.concatenate([x, *beside]) @ kernel + bias),)

    return formula


def dense_tanh_of(combine):
    """y = tanh(concat(x, combine(children)) @ kernel + bias), zeros where there is no child."""

    def formula(weights, x, children, edges=()):
        kernel, bias = weights
        one = combine([y for (y,) in children], axis=0) if children else np.zeros(len(bias))
        return (np.tanh(np.concatenate([x, one]) @ kernel + bias),)

    return formula


def node_vectors(formula, weights, features, parents, edges=None, direction="up"):
    """The vector of every node of one tree or forest, as an array in the order of the nodes.

    `edges` are those above the nodes; without them the children of a node are numbered in the order
    of their indices. On the way down the parent is the one child.
    """
    weights = [np.asarray(weight, "float64") for weight in weights]
    children = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    states = {}
    order = roots_first(parents, children)
    for node in order if direction == "down" else reversed(order):
        if direction == "up":
            near = children[node]
            labels = range(len(near)) if edges is None else [edges[k] for k in near]
        else:
            near = [parents[node]] if parents[node] >= 0 else []
            labels = [0 if edges is None else edges[node]] * len(near)
        x = features[node].astype("float64")
        states[node] = formula(weights, x, [states[k] for k in near], labels)
    return np.array([states[node][0] for node in range(len(parents))])


def roots_first(parents, children):
    """All nodes, each after its parent."""
    order = [node for node, parent in enumerate(parents) if parent < 0]
    for node in order:
        order += children[node]
    return order


def root_vector(formula, weights, features, parents, units, edges=None):
    """The sum of the vectors of the roots of one tree or forest; zeros where there is no node."""
    vectors = node_vectors(formula, weights, features, parents, edges)
    return sum((vectors[node] for node in np.flatnonzero(parents == -1)), np.zeros(units))


def on_all_nodes(leaf_features, parents):
    """The features of all nodes of one tree, from those of its leaves: zeros for inner nodes."""
    features = np.zeros((len(parents), leaf_features.shape[1]))
    features[np.setdiff1d(np.arange(len(parents)), parents)] = leaf_features
    return features


MERGES = {
    "concat": lambda up, down: np.concatenate([up, down], axis=-1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda up, down: (up + down) / 2,
}
