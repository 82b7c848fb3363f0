"""What models are judged on: functions of (features, clips) that return a report; no torch."""
