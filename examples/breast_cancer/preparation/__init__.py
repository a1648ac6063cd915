"""The preparation container: any site's tables in, one canonical table of cases out."""
