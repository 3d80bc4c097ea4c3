"""The rows of the paper's Table 1, by the names that its recipes have here. A recipe of any other name has no row there.

Source: Schall, Barthel, Hezel, Jung, arXiv 2409.01936, Table 1; percent. The columns are in assets/table_1.py.
"""

PAPER = {  # by recipe, in the order of table_1.COLUMNS: ViT-L-14-336 of OpenAI, and what the authors made of it
    "base": (76.0, 77.5, 77.0, 43.4, 78.2, 52.7, 46.4, 51.3, 76.6, 61.0, 77.6, 72.0, 89.0, 61.7),
    "gpr": (87.1, 85.0, 88.2, 67.3, 84.2, 60.5, 61.2, 57.8, 74.5, 60.8, 76.2, 74.5, 84.9, 57.2),
    "gpr_rea": (86.7, 84.4, 87.9, 66.4, 83.8, 60.4, 60.9, 57.1, 77.2, 61.5, 77.9, 74.6, 89.8, 64.6),
    "mcip": (87.0, 84.8, 88.0, 67.4, 84.1, 60.4, 61.0, 57.7, 77.0, 61.1, 78.3, 74.5, 90.1, 65.6),
    "mcip_rea": (87.0, 84.8, 88.0, 67.4, 84.1, 60.4, 61.0, 57.7, 77.3, 61.6, 78.4, 74.6, 90.2, 66.1),
}
PAPER_AVERAGES = {"base": 67.2, "gpr": 68.4, "gpr_rea": 73.8, "mcip": 74.1, "mcip_rea": 74.2}  # as printed
AVERAGE_NOTES = {"gpr": "The average that the paper prints for gpr, 68.4, is not the mean of its columns, 72.8."}
