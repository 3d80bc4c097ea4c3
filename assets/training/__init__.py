"""What the training stages share: data, augmentation, optimiser, loop, contrastive loss. What they train, and on what data, is theirs."""
