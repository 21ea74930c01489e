"""What is computed in another way where a device gains from it: a plain twin in PyTorch, and a fast one beside it.

`docs/accelerations.md` lists them all. $DIFFUSION_ART_ACCELERATE=0 leaves only the plain ones.
"""
