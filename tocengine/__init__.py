"""tocengine: from a hospital's ADT feed to a delivered, audited transition-of-care notice."""

__version__ = "0.1.0"
