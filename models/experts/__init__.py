"""Experts, one file each: ways from features to outputs that a head mixes."""
