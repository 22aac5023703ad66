DecisionAck
“¡e