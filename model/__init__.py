"""The modules: attention, blocks, trunks, embeddings and the language model made of them."""
