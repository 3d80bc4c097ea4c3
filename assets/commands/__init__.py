"""What is run by hand, beside the stages: promote, readme, summary, seeds. They read artefacts; no stage depends on them."""
