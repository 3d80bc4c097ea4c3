"""Five recipes side by side: the table, the plots, the picture grids, the page and the verdict that lets a recipe be published."""
