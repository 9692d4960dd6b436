"""The audit: what logged rollouts show of a signal and of the credit that methods make of it."""
