"""What a run folder shows: its metrics as curves of bounded size, its grids as a film, and `report.html`."""
