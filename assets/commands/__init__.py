"""What is run by hand, beside the stages: promote, record, summary, code. They read artefacts; no stage depends on them."""
