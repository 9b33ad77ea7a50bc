"""Recording a model as a graph with open sizes, and the files it is kept in."""
