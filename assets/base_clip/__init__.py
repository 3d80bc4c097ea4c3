"""The CLIP model to start from: one of open_clip's, or the demo's own, joined from two pretrained towers."""
