"""What fine-tuning can teach: a file for each task, with its data, its head, its loss and its figures."""
