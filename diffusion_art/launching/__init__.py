"""From a composed config to a run that trains: every choice settled, processes started, and the run itself."""
