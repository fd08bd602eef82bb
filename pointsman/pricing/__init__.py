"""Price lists that others keep: their models as arms, and a catalog held against them."""
