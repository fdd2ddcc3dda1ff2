"""Rows of pictures with answers, which are trained (`finetune`) or measured (`evaluate`)."""
