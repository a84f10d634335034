"""The edit: trains self-attention to turn unsafe content into its censored form."""
