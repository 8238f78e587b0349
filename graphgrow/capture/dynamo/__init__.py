"""Recording a forward with Dynamo, and what becomes of the record: a graph like fx's."""
