"""The steps of every training: pace, batches drawn ahead, averaged weights, checkpoints, devices, options."""
