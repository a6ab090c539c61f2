"""What LangChain's objects tell, and how they travel; imports nothing of LangChain's by itself."""
