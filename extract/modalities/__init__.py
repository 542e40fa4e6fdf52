"""What an item of each modality is, and how it is prepared for its encoder."""
