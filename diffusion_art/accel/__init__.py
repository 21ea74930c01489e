"""What is computed in another way where a device gains from it: a plain twin in PyTorch, and a fast one beside it.

`docs/accelerations.md` lists them all. With $DIFFUSION_ART_ACCELERATE=0 the plain ones are used, except for
`memory.py`, `cores.py`, `lists.py`, `ahead_of_time.py`, `regions.py`, the order in memory of maps and, on a GPU,
`muon_stacks.py`.
"""
