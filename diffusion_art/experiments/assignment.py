"""The linear assignment problem, exactly: each row one column of its own, at the least sum of costs.

For `noise=assigned` (immiscible.py), with which it goes.
"""

from __future__ import annotations

import numpy as np


def assignment(cost: np.ndarray) -> list[int]:
    """The column of each row of a square cost matrix, in O(n^3).

    Rows join one by one. Each finds the cheapest way, under costs reduced by the potentials of rows and columns, to a
    free column, along which the earlier rows move over (Dijkstra's search; the potentials keep reduced costs >= 0 and
    those in use at 0). 32 x 32 takes about 3 ms.

    Paper: Jonker & Volgenant 1987, https://doi.org/10.1007/BF02278710
    """
    n = len(cost)
    if cost.shape != (n, n) or not np.isfinite(cost).all():
        raise ValueError(f"an assignment needs a square matrix of finite costs, not one of shape {cost.shape}")
    of_row, of_column = np.zeros(n), np.zeros(n)  # potentials
    row_of = np.full(n, -1)  # of each column; -1 where free
    for joining in range(n):
        distance, before = np.full(n, np.inf), np.full(n, -1)  # to each column, and the column before it on the way
        settled = np.zeros(n, dtype=bool)
        row, column, reached = joining, -1, 0.0
        while row >= 0:
            way = reached + cost[row] - of_row[row] - of_column
            nearer = ~settled & (way < distance)
            distance[nearer], before[nearer] = way[nearer], column
            column = int(np.where(settled, np.inf, distance).argmin())
            settled[column], reached, row = True, distance[column], row_of[column]
        passed = settled & (row_of >= 0)
        of_row[row_of[passed]] += reached - distance[passed]
        of_row[joining] += reached
        of_column[settled] -= reached - distance[settled]
        while column >= 0:
            row_of[column] = joining if before[column] < 0 else row_of[before[column]]
            column = int(before[column])
    return np.argsort(row_of).tolist()
