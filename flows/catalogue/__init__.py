"""The catalogue of features as a page: what each is, why it is so, what reads it, and how it looks on candles."""
