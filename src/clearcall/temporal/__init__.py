"""The motion-compensated temporal filter."""
