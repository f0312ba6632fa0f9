"""The process beside one service instance: its settings, its life, its admin endpoint. Gateways are made of it too."""
