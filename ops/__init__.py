"""What is done to a stack from outside the Pulumi program: set-up, verification, outputs, reports."""
