"""Mixed precision within a budget: the stage behind ``qconvert tune`` and the budgets of ``qconvert quantize``."""
