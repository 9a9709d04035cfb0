"""Training: tokenizer, model, packing, the loop, checkpoints and the loss on reference items."""
