"""What is made: one package per artefact, in the order data flows. How and when it is made is orchestration's concern."""
