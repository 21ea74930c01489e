"""Terms of the training loss beside the objective's own: one file and one key of the config each.

    alignment     a map of the backbone is brought near to what an image tower sees
    perceptual    x_0_hat is brought near to the picture in an image tower's features
    teacher       the objective is told what a finished model makes of the same noise

They combine. `term.py` says what a training step asks of one. A new one is a
class here and a yaml whose `_target_` names it, under a top-level key called as the term: `conf/NAME/CHOICE.yaml`,
taken by `+NAME=CHOICE`.
"""
