"""What tests, demo and benchmark are played on: real servers, real peers, certificates, test apps. Not shipped."""
