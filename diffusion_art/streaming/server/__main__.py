from __future__ import annotations

from diffusion_art.streaming.server.run import main

if __name__ == "__main__":
    main()
