"""What the training stages share: data, augmentation, optimiser, loop, contrastive loss. What is trained, and on what, is theirs."""
