"""Streaming: items read one by one and encoders trained together with the fusion."""
