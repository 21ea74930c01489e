"""What is not recommended, kept runnable: a yaml names it by its `_target_`, and nothing in the package imports it.

Each module says what it gained when it was tried, or that it was not tried, and when it goes.

    immiscible     noise near its picture: noise=immiscible, noise=assigned
    edm            EDM's preconditioning and loss: model/prediction=edm objective=edm
    soft_min_snr   a weighting: objective=soft_min_snr

benchmarks/TRIED.md has the figures, conf/experiment/ablation/ the runs that they are of.
"""
