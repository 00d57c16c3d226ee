"""What a run decided and measured, as data and as documents."""
