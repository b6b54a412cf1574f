"""What training did to the model's answers: generation, known rewards, the comparison before and after."""
