"""OpenVLA and OpenVLA-OFT in plain PyTorch and transformers, with their checkpoints in and out.

Nothing here knows of beliefs or latent loops: visual tokens take an attention bias, action tokens take embeddings,
and the hidden states come back, so that the policy can sit on top.
"""
