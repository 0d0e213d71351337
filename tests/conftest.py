"""What holds for every test."""

import torch

# Models in tests are tiny: a second thread only waits for the first, and for the other jobs of the machine.
torch.set_num_threads(1)
